# What a cloud must tell, and what is refused: terraform test.

variables {
  user  = "deploy"
  entry = ["192.0.2.1"]
  hosts = {
    edge1 = { id = "1", groups = ["nginx"], address = "192.0.2.1", private_address = "10.0.0.1" }
    app1  = { id = "2", groups = ["channels"], address = "192.0.2.2", private_address = "10.0.0.2" }
  }
}

run "what_may_be_left_out_has_a_value" {
  command = plan

  assert {
    condition     = !output.inventory.proxy_protocol && length(output.inventory.proxies) == 0 && length(output.inventory.hosts["app1"].mounts) == 0
    error_message = jsonencode(output.inventory)
  }
}

run "a_group_that_the_kit_does_not_have" {
  command = plan

  variables {
    hosts = {
      edge1 = { id = "1", groups = ["nginx", "edge"], address = "192.0.2.1", private_address = "10.0.0.1" }
      app1  = { id = "2", groups = ["channels"], address = "192.0.2.2", private_address = "10.0.0.2" }
    }
  }

  expect_failures = [var.hosts]
}

run "no_app_host" {
  command = plan

  variables {
    hosts = {
      edge1 = { id = "1", groups = ["nginx"], address = "192.0.2.1", private_address = "10.0.0.1" }
    }
  }

  expect_failures = [var.hosts]
}

run "an_address_twice" {
  command = plan

  variables {
    hosts = {
      edge1 = { id = "1", groups = ["nginx"], address = "192.0.2.1", private_address = "10.0.0.1" }
      app1  = { id = "2", groups = ["channels"], address = "192.0.2.2", private_address = "10.0.0.1" }
    }
  }

  expect_failures = [var.hosts]
}
