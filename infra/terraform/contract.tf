# A contract of your own, in a bucket that no program may write: in the others objects expire, and programs write to them.

module "contract_bucket" {
  source                        = "./modules/bucket"
  count                         = var.contract == null ? 0 : 1
  name                          = "${local.name}-contract-${local.stack}"
  expire_days                   = {}
  noncurrent_days               = 365 # a revision of a task definition reads its own version: a rollback must still find it
  may_be_destroyed_with_objects = var.may_destroy_data
}

resource "aws_s3_object" "contract" {
  #checkov:skip=CKV_AWS_186:SSE-S3, as in the bucket module; a contract contains names and types, no row and no secret.
  count        = var.contract == null ? 0 : 1
  bucket       = module.contract_bucket[0].name
  key          = "contract.yaml"
  content      = file(var.contract)
  etag         = filemd5(var.contract) # uploaded again if someone has replaced it
  content_type = "application/yaml"
  depends_on   = [module.contract_bucket] # an object has a version only once versioning is enabled
}

locals {
  # By source, what the contract says of it, which decides what is made for it: a document that can't be read says nothing, and each
  # program reports its mistakes. A contract that is only in the images has sources of databases: `sources` names them.
  document  = try(yamldecode(file(var.contract)), {})
  documents = try(local.document.sources, { (local.main_source) = local.document.source }, {})
  declared = {
    for name, source in local.documents : name => {
      kind     = can(source.api) ? "api" : anytrue([for table in values(source.tables) : can(table.file)]) ? "files" : "database"
      datasets = [for name, table in source.tables : name if can(table.file)]
    }
  }
  apis         = [for source in values(local.documents) : source.api if can(source.api)]
  api_secrets  = toset([for api in local.apis : api.secret if can(api.secret)])
  api_proxy    = lookup(var.settings, "STARLIFT_API_PROXY", null)
  api_urls     = local.api_proxy != null ? [local.api_proxy] : flatten([for api in local.apis : [api.url, try(api.token_url, [])]])
  api_ports    = length(local.apis) == 0 ? [] : distinct([for url in local.api_urls : tonumber(try(regex("^https?://[^/]*:(\\d+)(/|$)", url)[0], startswith(url, "http:") ? 80 : 443))])
  is_delivered = anytrue([for source in values(local.sources) : source.kind != "database"])

  # The version is in the name, so that a changed document makes a new revision of each task definition, and the tasks of one
  # revision all read the same document, even while a deployment replaces them or after it was rolled back.
  contract_environment = {
    for object in aws_s3_object.contract : "STARLIFT_CONTRACT" => "s3://${object.bucket}/${object.key}?versionId=${object.version_id}"
  }
  contract_statements = [
    for object in aws_s3_object.contract :
    { Sid = "ReadContract", Effect = "Allow", Action = "s3:GetObjectVersion", Resource = "${module.contract_bucket[0].arn}/${object.key}" }
  ]
}
