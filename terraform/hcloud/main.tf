locals {
  # The names of the hosts, as the inventory has them, with what they are.
  hosts = merge([
    for group, wanted in var.servers : {
      for number in range(wanted.count) : "${group}${number + 1}" => {
        group  = group
        number = number
        type   = wanted.type
        image  = wanted.image
        # Fixed: a host that is made again has the address that the other hosts know.
        address = cidrhost(var.network, local.first_address[group] + number)
      }
    }
  ]...)

  load_balancer_address = cidrhost(var.network, 5)
  first_address         = { edge = 10, data = 20, app = 30 }
  # The groups of the inventory, which are the kit's.
  groups = { edge = ["nginx"], app = ["channels"], data = ["postgres", "redis"] }

  balanced = var.servers.edge.count > 1
  labels   = merge(var.labels, { cluster = var.name })

  # Hetzner's: a spread placement group takes up to 10 servers.
  placed_together = 10

  user = "deploy"
}

# What Hetzner has. A name that does not exist stops the plan. In terraform test, these lists are empty:
# a mock cannot fill them.
data "hcloud_locations" "all" {
  lifecycle {
    postcondition {
      condition     = length(self.locations) == 0 || contains(self.locations[*].name, var.location)
      error_message = "location is \"${var.location}\"; allowed: ${join(", ", self.locations[*].name)}."
    }
  }
}

data "hcloud_server_types" "all" {
  lifecycle {
    postcondition {
      condition     = length(self.server_types) == 0 || alltrue([for wanted in values(var.servers) : contains(self.server_types[*].name, wanted.type)])
      error_message = "${join(", ", [for group, wanted in var.servers : "servers.${group}.type is \"${wanted.type}\"" if !contains(self.server_types[*].name, wanted.type)])}; allowed: ${join(", ", [for each in self.server_types : each.name if !each.is_deprecated])}."
    }
  }
}

# A host that exists keeps its image, though Hetzner may have deprecated that: the list has those, too.
data "hcloud_images" "all" {
  include_deprecated = true

  lifecycle {
    postcondition {
      condition     = length(self.images) == 0 || alltrue([for wanted in values(var.servers) : contains(concat(self.images[*].name, [for each in self.images : tostring(each.id)]), wanted.image)])
      error_message = "${join(", ", [for group, wanted in var.servers : "servers.${group}.image is \"${wanted.image}\"" if !contains(concat(self.images[*].name, [for each in self.images : tostring(each.id)]), wanted.image)])}; allowed: ${join(", ", distinct([for each in self.images : each.name if each.os_flavor == "debian" && each.type == "system"]))}, or the id of an image of your own."
    }
  }
}

data "hcloud_load_balancer_types" "all" {
  lifecycle {
    postcondition {
      condition     = length(self.load_balancer_types) == 0 || contains(self.load_balancer_types[*].name, var.load_balancer_type)
      error_message = "load_balancer_type is \"${var.load_balancer_type}\"; allowed: ${join(", ", self.load_balancer_types[*].name)}."
    }
  }
}

data "hcloud_location" "here" {
  name = var.location

  depends_on = [data.hcloud_locations.all]
}

resource "hcloud_ssh_key" "operator" {
  for_each = var.ssh_keys

  name       = "${var.name}-${each.key}"
  public_key = trimspace(each.value)
  labels     = local.labels
}

resource "hcloud_placement_group" "app" {
  count = ceil(var.servers.app.count / local.placed_together)

  name   = "${var.name}-app${count.index + 1}"
  type   = "spread"
  labels = local.labels
}

resource "hcloud_server" "host" {
  for_each = local.hosts

  name        = "${var.name}-${each.key}"
  server_type = each.value.type
  image       = each.value.image
  location    = var.location
  labels      = merge(local.labels, { group = each.value.group })

  # Without a key Hetzner would set a password for root, and send it by e-mail.
  ssh_keys = [for key in hcloud_ssh_key.operator : key.id]
  # The user as whom Ansible logs in. All else is the roles'.
  user_data = "#cloud-config\n${yamlencode({
    users = [{
      name                = local.user
      shell               = "/bin/bash"
      lock_passwd         = true
      sudo                = "ALL=(ALL) NOPASSWD:ALL"
      ssh_authorized_keys = [for key in var.ssh_keys : trimspace(key)]
    }]
  })}"

  firewall_ids = [hcloud_firewall.hosts[each.value.group == "edge" ? "edge" : "inner"].id]
  placement_group_id = (
    each.value.group == "app"
    ? hcloud_placement_group.app[floor(each.value.number / local.placed_together)].id
    : null
  )

  public_net {
    ipv4_enabled = true
    ipv6_enabled = true
  }

  network {
    network_id = hcloud_network_subnet.private.network_id
    ip         = each.value.address
    # Unset, it would be detached and attached again by every run.
    alias_ips = []
  }

  # A worker drains while its unit stops.
  shutdown_before_deletion = true

  lifecycle {
    # Each of them would make every host again, all at once.
    ignore_changes = [image, ssh_keys, user_data]
  }
}

# PostgreSQL's data outlive the host.
resource "hcloud_volume" "data" {
  name     = "${var.name}-data"
  location = var.location
  size     = var.volume_gigabytes
  format   = "ext4"
  labels   = local.labels
}

resource "hcloud_volume_attachment" "data" {
  volume_id = hcloud_volume.data.id
  server_id = hcloud_server.host["data1"].id
  # The roles mount it.
  automount = false
}
