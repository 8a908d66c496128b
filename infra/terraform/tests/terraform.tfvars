# The values of every test in this folder that says no others; `terraform test` reads them by itself.
environment       = "test"
github_repository = "example/starlift"
alarm_email       = "starlift@example.com"
image_digests = {
  ingestion   = "sha256:0000000000000000000000000000000000000000000000000000000000000001"
  remodelling = "sha256:0000000000000000000000000000000000000000000000000000000000000002"
  loading     = "sha256:0000000000000000000000000000000000000000000000000000000000000003"
}
