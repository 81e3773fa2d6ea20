select id + 1 as id from {{ ref('shop__users') }}
