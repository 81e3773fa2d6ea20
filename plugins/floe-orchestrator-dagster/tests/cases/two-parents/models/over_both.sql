select id from {{ ref('both') }}
