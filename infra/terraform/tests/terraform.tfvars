# The values of every test in this folder that says no others; `terraform test` reads them by itself.
environment       = "test"
github_repository = "example/starlift"
alarm_email       = "starlift@example.com"
has_images        = true
