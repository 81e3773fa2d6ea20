{% snapshot first_of_two %}{{ config(unique_key='id') }} select * from {{ ref('source_of_it') }}{% endsnapshot %}
{% snapshot second_of_two %}{{ config(unique_key=['id', 'letter']) }} select id, letter from {{ ref('first_of_two') }}{% endsnapshot %}
