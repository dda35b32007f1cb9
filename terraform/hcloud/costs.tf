# What the cluster costs a month, from the table in prices.yml: no request, so it is known before
# anything is made.
locals {
  prices  = yamldecode(file("${path.module}/prices.yml"))
  servers = values(local.hosts)[*].type

  costs = concat(
    [
      for type in distinct(local.servers) : {
        what  = "server ${type}"
        count = length([for each in local.servers : each if each == type])
        price = lookup(local.prices.servers, type, null)
      }
    ],
    [
      { what = "public IPv4 address", count = length(local.servers), price = local.prices.ipv4 },
      { what = "volume, GB", count = var.volume_gigabytes, price = local.prices.volume_gigabyte },
    ],
    [
      for type in local.balanced ? [var.load_balancer_type] : [] : {
        what  = "load balancer ${type}"
        count = 1
        price = lookup(local.prices.load_balancers, type, null)
      }
    ],
  )
}
