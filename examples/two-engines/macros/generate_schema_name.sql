{# The schema that is asked for, not `<default>_<asked for>`: one name on both targets. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name or target.schema }}
{%- endmacro %}
