select list(id) as ids from {{ ref('numbers') }}
