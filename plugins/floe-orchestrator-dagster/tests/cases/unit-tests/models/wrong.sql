select total from {{ ref('total') }}
