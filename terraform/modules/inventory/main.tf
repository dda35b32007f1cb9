terraform {
  required_version = ">= 1.7"
}

# What a cloud must tell, and nothing of any cloud. It makes no resource: it is the contract between
# the folder of a cloud and make cluster, which writes the inventory from its output.

variable "user" {
  description = "User as whom Ansible logs in, and who becomes root."
  type        = string
}

variable "hosts" {
  description = <<-EOT
    Hosts by name. The resource of each is in a map with the same names.
    id: the cloud's; a new machine has a new one. groups: of the kit. type: its size; leave it out if
    the cloud changes it without a stop. address: where SSH reaches it. private_address: where the
    other hosts reach it. mounts: devices of volumes, by directory.
  EOT
  type = map(object({
    id              = string
    groups          = list(string)
    type            = optional(string)
    address         = string
    private_address = string
    mounts          = optional(map(string), {})
  }))

  validation {
    condition = length(setsubtract(
      flatten(values(var.hosts)[*].groups), ["nginx", "channels", "postgres", "redis"],
    )) == 0
    error_message = "hosts has the groups ${join(", ", setsubtract(flatten(values(var.hosts)[*].groups), ["nginx", "channels", "postgres", "redis"]))}; allowed: nginx, channels, postgres and redis."
  }

  validation {
    condition     = length(setsubtract(["nginx", "channels"], flatten(values(var.hosts)[*].groups))) == 0
    error_message = "hosts has none in ${join(" and ", setsubtract(["nginx", "channels"], flatten(values(var.hosts)[*].groups)))}; allowed: at least one host in each of nginx and channels."
  }

  validation {
    condition     = length(distinct(values(var.hosts)[*].private_address)) == length(var.hosts)
    error_message = "hosts has the private_address ${join(", ", distinct([for host in values(var.hosts) : host.private_address if length([for other in values(var.hosts) : other if other.private_address == host.private_address]) > 1]))} more than once; allowed: a private_address of its own for each host."
  }
}

variable "proxies" {
  description = "Addresses and networks from which a load balancer connects to the edges."
  type        = list(string)
  default     = []
}

variable "proxy_protocol" {
  description = "Whether the load balancer speaks the PROXY protocol."
  type        = bool
  default     = false
}

variable "entry" {
  description = "Addresses to which the cluster's names must resolve."
  type        = list(string)
}

output "inventory" {
  description = "What make cluster writes into inventories/ENV/hosts.yml."
  value = {
    user           = var.user
    hosts          = var.hosts
    proxies        = var.proxies
    proxy_protocol = var.proxy_protocol
    entry          = var.entry
  }
}
