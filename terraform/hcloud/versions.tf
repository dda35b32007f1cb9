terraform {
  required_version = ">= 1.7"

  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.52"
    }
  }
}

# The token is taken from the environment, HCLOUD_TOKEN: so it is in no file, plan or state.
provider "hcloud" {}
