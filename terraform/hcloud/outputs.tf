module "inventory" {
  source = "../modules/inventory"

  user = local.user
  hosts = {
    for name, host in local.hosts : name => {
      id              = hcloud_server.host[name].id
      groups          = local.groups[host.group]
      type            = host.type
      address         = hcloud_server.host[name].ipv4_address
      private_address = host.address
      mounts          = host.group == "data" ? { "/var/lib/postgresql" = hcloud_volume.data.linux_device } : {}
    }
  }
  proxies        = local.balanced ? [local.load_balancer_address] : []
  proxy_protocol = local.balanced
  entry          = local.balanced ? hcloud_load_balancer.edge[*].ipv4 : [hcloud_server.host["edge1"].ipv4_address]
}

output "inventory" {
  description = "What only the cloud knows, such as addresses. make cluster writes inventories/ENV/hosts.yml from it."
  value       = module.inventory.inventory
}

output "costs" {
  description = "What the cluster costs a month: lines with a count and the price of one, null if prices.yml has none."
  value = {
    date     = local.prices.date
    currency = local.prices.currency
    note     = contains(local.prices.locations, var.location) ? local.prices.note : "These are the prices of ${join(", ", local.prices.locations)}. For those of ${var.location}: .venv/bin/python terraform/hcloud/prices.py --location ${var.location}"
    lines    = local.costs
  }
}
