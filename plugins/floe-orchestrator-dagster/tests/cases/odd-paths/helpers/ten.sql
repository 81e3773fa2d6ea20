{% macro ten() %}{{ vendored.ten() }}{% endmacro %}
