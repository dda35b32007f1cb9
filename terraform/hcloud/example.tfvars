# Copy this file to inventories/ENV/hcloud.tfvars. The token is not in here: export HCLOUD_TOKEN=...

# From where you reach the hosts by SSH: curl -4 ifconfig.me, or the network of your office or VPN.
operator_addresses = ["203.0.113.7/32"]

# Your public keys. Only hosts that are made from now on get them.
ssh_keys = {
  # ann = "ssh-ed25519 AAAA..."
}

# What differs from the defaults: one edge, two app hosts and one data host of the type cx23.
servers = {
  # app = { count = 3 }
}
