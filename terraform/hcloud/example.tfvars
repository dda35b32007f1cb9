# Copy this file to inventories/ENV/hcloud.tfvars. The token does not go in here: export HCLOUD_TOKEN=...

# The networks from which you reach the hosts by SSH: your office, your VPN, or the address that
# curl -4 ifconfig.me prints.
operator_addresses = [
  # "203.0.113.7/32",
]

# The public keys of the operators. New hosts get them; hosts that exist keep theirs.
ssh_keys = {
  # ann = "ssh-ed25519 AAAA..."
}

# What differs from the default: one edge, two app hosts and one data host, each a cx23.
servers = {
  # app = { count = 3 }
}
