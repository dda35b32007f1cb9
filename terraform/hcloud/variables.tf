variable "name" {
  description = "Name of the environment: the ENV of make cluster. The names of all resources begin with it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name is \"${var.name}\"; allowed: a lower-case letter, then up to 30 lower-case letters, digits and dashes. The names of all machines begin with it. Rename the directory in inventories/."
  }
}

variable "location" {
  description = "Hetzner's location of all machines. Placement groups spread app hosts within it."
  type        = string
  default     = "fsn1"
}

variable "operator_addresses" {
  description = "Networks that can reach the hosts by SSH, such as [\"203.0.113.7/32\"]."
  type        = list(string)

  validation {
    condition     = length(var.operator_addresses) > 0
    error_message = "operator_addresses is empty; allowed: at least one network, such as [\"203.0.113.7/32\"]. Without it, neither you nor Ansible can reach the hosts by SSH."
  }

  validation {
    condition     = alltrue([for each in var.operator_addresses : can(cidrhost(each, 0))])
    error_message = "operator_addresses has ${jsonencode([for each in var.operator_addresses : each if !can(cidrhost(each, 0))])}; allowed: networks with a prefix length, such as 203.0.113.7/32 or 2001:db8::/64."
  }

  validation {
    condition     = alltrue([for each in var.operator_addresses : try(cidrhost(each, 0) == cidrhost("${split("/", each)[0]}/${strcontains(each, ":") ? 128 : 32}", 0), true)])
    error_message = "operator_addresses has ${jsonencode([for each in var.operator_addresses : each if !try(cidrhost(each, 0) == cidrhost("${split("/", each)[0]}/${strcontains(each, ":") ? 128 : 32}", 0), true)])}, with bits of a host; allowed: ${jsonencode([for each in var.operator_addresses : "${cidrhost(each, 0)}/${split("/", each)[1]}" if can(cidrhost(each, 0))])}."
  }

  validation {
    condition = alltrue([
      for each in var.operator_addresses :
      try(tonumber(split("/", each)[1]) >= (strcontains(each, ":") ? 32 : 16), true)
    ])
    error_message = "operator_addresses has ${jsonencode([for each in var.operator_addresses : each if !try(tonumber(split("/", each)[1]) >= (strcontains(each, ":") ? 32 : 16), true)])}, which lets nearly everybody connect to SSH; allowed: IPv4 networks from /16 to /32, IPv6 networks from /32 to /128, such as those of your office or VPN."
  }
}

variable "ssh_keys" {
  description = "Public SSH keys of the operators, by name. New hosts get them; hosts that exist keep theirs."
  type        = map(string)

  validation {
    condition     = length(var.ssh_keys) > 0
    error_message = "ssh_keys is empty; allowed: at least one public key, such as { ann = \"ssh-ed25519 AAAA...\" }. Without a key nobody can log in."
  }

  validation {
    condition = alltrue([
      for key in values(var.ssh_keys) :
      can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]+=*( [^\n]*)?$", trimspace(key)))
    ])
    error_message = "ssh_keys: ${join(", ", [for name, key in var.ssh_keys : name if !can(regex("^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]+=*( [^\n]*)?$", trimspace(key)))])} is not a public key; allowed: the content of a file such as ~/.ssh/id_ed25519.pub."
  }

  validation {
    condition = length(var.ssh_keys) == length(distinct([
      for key in values(var.ssh_keys) : join(" ", slice(split(" ", "${trimspace(key)} "), 0, 2))
    ]))
    error_message = "ssh_keys has the same key as ${join(" and ", [for name, key in var.ssh_keys : name if length([for other in values(var.ssh_keys) : other if slice(split(" ", "${trimspace(other)} "), 0, 2) == slice(split(" ", "${trimspace(key)} "), 0, 2)]) > 1])}; allowed: each key once. Hetzner refuses the same key twice."
  }
}

variable "servers" {
  description = "Hosts by group: their count, server type and image. The image applies to new hosts only."
  type = object({
    edge = optional(object({
      count = optional(number, 1)
      type  = optional(string, "cx23")
      image = optional(string, "debian-12")
    }), {})
    app = optional(object({
      count = optional(number, 2)
      type  = optional(string, "cx23")
      image = optional(string, "debian-12")
    }), {})
    data = optional(object({
      count = optional(number, 1)
      type  = optional(string, "cx23")
      image = optional(string, "debian-12")
    }), {})
  })
  default = {}

  validation {
    condition     = contains(range(1, 11), var.servers.edge.count)
    error_message = "servers.edge.count is ${var.servers.edge.count}; allowed: a whole number from 1 to 10. Two or more get a load balancer."
  }

  validation {
    condition     = contains(range(1, 101), var.servers.app.count)
    error_message = "servers.app.count is ${var.servers.app.count}; allowed: a whole number from 1 to 100. make plan SOCKETS=... says how many app hosts you need."
  }

  validation {
    condition     = var.servers.data.count == 1
    error_message = "servers.data.count is ${var.servers.data.count}; allowed: 1. PostgreSQL and Redis run on one host."
  }
}

variable "volume_gigabytes" {
  description = "Size of the volume with PostgreSQL's data. It cannot shrink. To grow it: docs/terraform.md#what-is-made."
  type        = number
  default     = 10

  validation {
    condition     = var.volume_gigabytes >= 10 && var.volume_gigabytes <= 10240 && floor(var.volume_gigabytes) == var.volume_gigabytes
    error_message = "volume_gigabytes is ${var.volume_gigabytes}; allowed: a whole number from 10 to 10240."
  }
}

variable "load_balancer_type" {
  description = "Type of the load balancer before two or more edges."
  type        = string
  default     = "lb11"
}

variable "network" {
  description = "Private network of the hosts."
  type        = string
  default     = "10.10.0.0/24"

  validation {
    condition     = can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)[0-9.]+/(1[6-9]|2[0-4])$", var.network)) && try(cidrhost(var.network, 0) == split("/", var.network)[0], false)
    error_message = "network is \"${var.network}\"; allowed: a private IPv4 network of /16 to /24 without host bits, such as 10.10.0.0/24."
  }
}

variable "labels" {
  description = "Further labels of all resources."
  type        = map(string)
  default     = {}

  # docs.hetzner.cloud, Labels.
  validation {
    condition = alltrue([
      for key, value in var.labels :
      can(regex("^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$", key)) && can(regex("^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$", value))
    ])
    error_message = "labels has ${jsonencode({ for key, value in var.labels : key => value if !can(regex("^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$", key)) || !can(regex("^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$", value)) })}; allowed: names and values of up to 63 letters, digits, dashes, underscores and dots that begin and end with a letter or digit."
  }
}
