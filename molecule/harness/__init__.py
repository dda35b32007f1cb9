"""What the tests of every scenario stand on."""
