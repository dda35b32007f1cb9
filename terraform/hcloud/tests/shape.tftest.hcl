# The shape of the cluster, without an account: terraform test.

mock_provider "hcloud" {
  mock_data "hcloud_location" { defaults = { network_zone = "eu-central" } }
  mock_resource "hcloud_network" { defaults = { id = "1" } }
  mock_resource "hcloud_placement_group" { defaults = { id = "2" } }
  mock_resource "hcloud_firewall" { defaults = { id = "3" } }
  mock_resource "hcloud_server" { defaults = { id = "4", ipv4_address = "192.0.2.4" } }
  mock_resource "hcloud_volume" { defaults = { id = "5", linux_device = "/dev/disk/by-id/scsi-0HC_Volume_5" } }
  mock_resource "hcloud_load_balancer" { defaults = { id = "6", ipv4 = "192.0.2.6" } }
}

variables {
  name               = "prod"
  operator_addresses = ["203.0.113.7/32", "2001:db8::/64"]
  ssh_keys           = { ann = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3q ann@example.org" }
}

run "the_default_is_small" {
  assert {
    condition     = [for name, host in hcloud_server.host : host.name] == ["prod-app1", "prod-app2", "prod-data1", "prod-edge1"]
    error_message = "other hosts: ${jsonencode([for host in hcloud_server.host : host.name])}"
  }

  assert {
    condition     = alltrue([for host in hcloud_server.host : host.server_type == "cx23" && host.image == "debian-12"])
    error_message = "other types or images"
  }

  assert {
    condition     = { for name, host in hcloud_server.host : name => one(host.network).ip } == { app1 = "10.10.0.30", app2 = "10.10.0.31", data1 = "10.10.0.20", edge1 = "10.10.0.10" }
    error_message = "other private addresses"
  }

  assert {
    condition     = length(hcloud_load_balancer.edge) == 0
    error_message = "one edge needs no load balancer"
  }

  assert {
    condition     = alltrue([for host in hcloud_server.host : host.labels.cluster == "prod" && contains(["app", "data", "edge"], host.labels.group)])
    error_message = "labels: cluster and group of each host"
  }
}

run "firewalls_let_in_exactly_this" {
  command = plan

  assert {
    condition = jsonencode({ for name, firewall in hcloud_firewall.hosts : name => sort([
      for rule in firewall.rule : join(" ", [rule.direction, rule.protocol, rule.port, join(",", sort(rule.source_ips))])
      ]) }) == jsonencode({
      edge = [
        "in tcp 22 2001:db8::/64,203.0.113.7/32",
        "in tcp 443 0.0.0.0/0,::/0",
        "in tcp 80 0.0.0.0/0,::/0",
      ]
      inner = ["in tcp 22 2001:db8::/64,203.0.113.7/32"]
    })
    error_message = jsonencode(hcloud_firewall.hosts)
  }
}

run "each_host_has_one_firewall" {
  assert {
    condition     = alltrue([for host in hcloud_server.host : length(host.firewall_ids) == 1])
    error_message = "a host without a firewall, or with two"
  }
}

run "app_hosts_are_spread" {
  variables {
    servers = { app = { count = 11, type = "cx33" } }
  }

  assert {
    condition     = [for group in hcloud_placement_group.app : "${group.name} ${group.type}"] == ["prod-app1 spread", "prod-app2 spread"]
    error_message = "ten servers to a spread group"
  }

  assert {
    condition     = alltrue([for name, host in hcloud_server.host : (host.placement_group_id != null) == startswith(name, "app")])
    error_message = "app hosts, and no others, are spread"
  }

  assert {
    condition     = [for name, host in hcloud_server.host : name if host.server_type == "cx33"] == [for number in [1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9] : "app${number}"]
    error_message = "the type is that of the group"
  }
}

run "cloud_init_makes_the_user_and_nothing_else" {
  assert {
    condition = yamldecode(hcloud_server.host["app1"].user_data) == {
      users = [{
        name                = "deploy"
        shell               = "/bin/bash"
        lock_passwd         = true
        sudo                = "ALL=(ALL) NOPASSWD:ALL"
        ssh_authorized_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3q ann@example.org"]
      }]
    }
    error_message = hcloud_server.host["app1"].user_data
  }
}

run "two_edges_are_behind_a_load_balancer" {
  variables {
    servers = { edge = { count = 2 } }
  }

  assert {
    condition = { for port, service in hcloud_load_balancer_service.edge : port =>
      "${service.protocol} ${service.listen_port} ${service.destination_port} ${service.proxyprotocol}"
    } == { "443" = "tcp 443 443 true", "80" = "tcp 80 80 true" }
    error_message = "services: ${jsonencode(hcloud_load_balancer_service.edge)}"
  }

  assert {
    condition     = keys(hcloud_load_balancer_target.edge) == ["edge1", "edge2"] && alltrue([for target in hcloud_load_balancer_target.edge : target.use_private_ip])
    error_message = "targets: ${jsonencode(hcloud_load_balancer_target.edge)}"
  }

  assert {
    condition     = [for rule in hcloud_firewall.hosts["edge"].rule : rule.port] == ["22"]
    error_message = "behind a load balancer, an edge needs no open port but that of SSH"
  }

  assert {
    condition     = output.inventory.proxies == tolist(["10.10.0.5"]) && output.inventory.proxy_protocol && output.inventory.entry == tolist(["192.0.2.6"])
    error_message = jsonencode(output.inventory)
  }
}

run "the_output_is_what_the_inventory_needs" {
  assert {
    condition = jsonencode(output.inventory) == jsonencode({
      user = "deploy"
      hosts = {
        app1  = { id = "4", groups = ["channels"], type = "cx23", address = "192.0.2.4", private_address = "10.10.0.30", mounts = {} }
        app2  = { id = "4", groups = ["channels"], type = "cx23", address = "192.0.2.4", private_address = "10.10.0.31", mounts = {} }
        data1 = { id = "4", groups = ["postgres", "redis"], type = "cx23", address = "192.0.2.4", private_address = "10.10.0.20", mounts = { "/var/lib/postgresql" = "/dev/disk/by-id/scsi-0HC_Volume_5" } }
        edge1 = { id = "4", groups = ["nginx"], type = "cx23", address = "192.0.2.4", private_address = "10.10.0.10", mounts = {} }
      }
      proxies        = []
      proxy_protocol = false
      entry          = ["192.0.2.4"]
    })
    error_message = jsonencode(output.inventory)
  }

  assert {
    condition     = { for line in output.costs.lines : line.what => line.count } == { "server cx23" = 4, "public IPv4 address" = 4, "volume, GB" = 10 }
    error_message = jsonencode(output.costs)
  }
}

run "a_name_that_no_machine_can_have" {
  command = plan

  variables {
    name = "my_shop"
  }

  expect_failures = [var.name]
}
