terraform {
  required_version = ">= 1.7"
}

# What a cloud must tell, and nothing of any cloud. It makes no resource: it is the contract between
# the folder of a cloud and make cluster, which writes the inventory from its output.

variable "user" {
  description = "The user as whom Ansible logs in, and who becomes root."
  type        = string
}

variable "hosts" {
  description = <<-EOT
    The hosts by name. The resource of each is in a map with the same names.
    id: another one is another machine. groups: of the kit. address: where SSH reaches it.
    private_address: where the other hosts reach it. mounts: devices of volumes, by directory.
  EOT
  type = map(object({
    id              = string
    groups          = list(string)
    address         = string
    private_address = string
    mounts          = optional(map(string), {})
  }))

  validation {
    condition = length(setsubtract(
      flatten(values(var.hosts)[*].groups), ["nginx", "channels", "postgres", "redis"],
    )) == 0
    error_message = "hosts has other groups than nginx, channels, postgres and redis."
  }

  validation {
    condition     = length(setsubtract(["nginx", "channels"], flatten(values(var.hosts)[*].groups))) == 0
    error_message = "hosts has no edge or no app host; a cluster needs at least one in nginx and one in channels."
  }

  validation {
    condition     = length(distinct(values(var.hosts)[*].private_address)) == length(var.hosts)
    error_message = "Two hosts have the same private_address."
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
