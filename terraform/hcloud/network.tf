resource "hcloud_network" "private" {
  name     = var.name
  ip_range = var.network
  labels   = local.labels
}

resource "hcloud_network_subnet" "private" {
  network_id   = hcloud_network.private.id
  type         = "cloud"
  network_zone = data.hcloud_location.here.network_zone
  ip_range     = var.network
}

locals {
  ssh = { what = "SSH from the operators", port = "22", from = var.operator_addresses }
  web = [
    for what, port in { HTTP = "80", HTTPS = "443" } : { what = what, port = port, from = ["0.0.0.0/0", "::/0"] }
  ]
  # Behind a load balancer the edges get requests by the private network.
  open = {
    edge  = concat([local.ssh], local.balanced ? [] : local.web)
    inner = [local.ssh]
  }
}

# What may come in from outside. What the hosts may ask each other by the private network, the roles
# say: cluster_guarded_ports.
resource "hcloud_firewall" "hosts" {
  for_each = local.open

  name   = "${var.name}-${each.key}"
  labels = local.labels

  dynamic "rule" {
    for_each = each.value

    content {
      description = rule.value.what
      direction   = "in"
      protocol    = "tcp"
      port        = rule.value.port
      source_ips  = rule.value.from
    }
  }
}

resource "hcloud_load_balancer" "edge" {
  count = local.balanced ? 1 : 0

  name               = "${var.name}-edge"
  load_balancer_type = var.load_balancer_type
  location           = var.location
  labels             = local.labels

  algorithm {
    type = "least_connections"
  }
}

resource "hcloud_load_balancer_network" "edge" {
  count = local.balanced ? 1 : 0

  load_balancer_id = hcloud_load_balancer.edge[0].id
  subnet_id        = hcloud_network_subnet.private.id
  ip               = local.load_balancer_address
}

resource "hcloud_load_balancer_service" "edge" {
  for_each = local.balanced ? toset(["80", "443"]) : toset([])

  load_balancer_id = hcloud_load_balancer.edge[0].id
  # TLS is the edges'. By the PROXY protocol they know the client.
  protocol         = "tcp"
  listen_port      = tonumber(each.key)
  destination_port = tonumber(each.key)
  proxyprotocol    = true
}

resource "hcloud_load_balancer_target" "edge" {
  for_each = { for name, host in local.hosts : name => host if local.balanced && host.group == "edge" }

  type             = "server"
  load_balancer_id = hcloud_load_balancer.edge[0].id
  server_id        = hcloud_server.host[each.key].id
  use_private_ip   = true

  depends_on = [hcloud_load_balancer_network.edge]
}
