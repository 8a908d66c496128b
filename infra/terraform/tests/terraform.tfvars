# The default values of the tests in this folder; `terraform test` reads this file automatically.
environment       = "test"
github_repository = "example/starlift"
alarm_email       = "starlift@example.com"
has_images        = true
