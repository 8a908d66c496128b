# A way out of the private subnets, and none in: one NAT gateway, in a subnet in which nothing else is.

variable "name" { type = string }
variable "vpc_id" { type = string }
variable "cidr" { type = string }
variable "zone" { type = string }
variable "route_table_ids" { type = list(string) }

resource "aws_internet_gateway" "this" {
  vpc_id = var.vpc_id
  tags   = { Name = var.name }
}

resource "aws_subnet" "public" {
  vpc_id            = var.vpc_id
  availability_zone = var.zone
  cidr_block        = var.cidr
  tags              = { Name = "${var.name}-nat" }
}

resource "aws_route_table" "public" {
  vpc_id = var.vpc_id
  tags   = { Name = "${var.name}-nat" }
}

resource "aws_route_table_association" "public" {
  subnet_id      = aws_subnet.public.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route" "out" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_eip" "nat" { # the address that an API sees
  domain = "vpc"
  tags   = { Name = "${var.name}-nat" }
}

resource "aws_nat_gateway" "this" { # in one zone: a run that can't reach an API is made again, so a second one is not worth its price
  allocation_id = aws_eip.nat.id
  subnet_id     = aws_subnet.public.id
  tags          = { Name = var.name }
  depends_on    = [aws_route.out]
}

resource "aws_route" "private" {
  count                  = length(var.route_table_ids)
  route_table_id         = var.route_table_ids[count.index]
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this.id
}

output "address" { value = aws_eip.nat.public_ip }
