terraform {
  required_version = ">= 1.7"

  required_providers {
    hcloud = {
      source  = "hetznercloud/hcloud"
      version = "~> 1.52"
    }
  }
}

# It takes the token from the environment, HCLOUD_TOKEN: so the token is in no file, plan or state.
provider "hcloud" {}
