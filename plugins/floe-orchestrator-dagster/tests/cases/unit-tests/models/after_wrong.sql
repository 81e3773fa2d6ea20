select total from {{ ref('wrong') }}
