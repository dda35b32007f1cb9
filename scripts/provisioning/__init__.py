"""Machines by Terraform: what a plan does to the hosts, the inventory, host keys."""
