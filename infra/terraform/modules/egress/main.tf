# The destinations that a program's tasks may reach.

variable "security_group_id" { type = string }

variable "destinations" {
  description = "The destinations by description; each is a security group, a prefix list or an address range."
  type = map(object({
    port              = number
    security_group_id = optional(string)
    prefix_list_id    = optional(string)
    cidr              = optional(string)
  }))
}

resource "aws_vpc_security_group_egress_rule" "this" {
  for_each                     = var.destinations
  security_group_id            = var.security_group_id
  description                  = each.key
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  referenced_security_group_id = each.value.security_group_id
  prefix_list_id               = each.value.prefix_list_id
  cidr_ipv4                    = each.value.cidr
}

output "destinations" { value = sort(keys(aws_vpc_security_group_egress_rule.this)) }
