{% macro generate_schema_name(custom_schema_name, node) %}{{ custom_schema_name or node.fqn[1] if node.fqn | length > 2 else target.schema }}{% endmacro %}
{% macro generate_alias_name(custom_alias_name=none, node=none) %}{{ (custom_alias_name or node.name).split('__')[-1] }}{% endmacro %}
