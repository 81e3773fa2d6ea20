select id from {{ ref('web__users') }} union all select id from {{ ref('shop__users') }}
