{% snapshot kept %}{{ config(unique_key='letter', strategy='check', check_cols='all') }} select * from {{ ref('letters') }}{% endsnapshot %}
