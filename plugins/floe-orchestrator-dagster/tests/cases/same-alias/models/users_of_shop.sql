{{ config(alias='Users Of Shop', schema='Odd Area') }} select id from {{ ref('users') }}
