# A network for deployments without one: private subnets, no traffic from the internet.

variable "name" { type = string }
variable "cidr" { type = string }
variable "region" { type = string }

variable "zones" {
  description = "The letters of the zones. Named, not counted, so that a zone that AWS adds does not move a subnet."
  type        = list(string)
}

resource "aws_vpc" "this" {
  #checkov:skip=CKV2_AWS_11:Only ingestion reaches the internet, if a contract has an API; a flow log would show no more than its own log.
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

resource "aws_default_security_group" "nothing" { # a resource without an explicit group reaches nothing
  vpc_id = aws_vpc.this.id
}

resource "aws_subnet" "private" {
  count             = length(var.zones)
  vpc_id            = aws_vpc.this.id
  availability_zone = "${var.region}${var.zones[count.index]}"
  cidr_block        = cidrsubnet(var.cidr, 4, count.index)
  tags              = { Name = "${var.name}-private-${var.zones[count.index]}" }
}

resource "aws_route_table" "private" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "private" {
  count          = length(var.zones)
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private.id
}

output "vpc_id" { value = aws_vpc.this.id }
output "subnet_ids" { value = aws_subnet.private[*].id }
output "route_table_ids" { value = [aws_route_table.private.id] }
