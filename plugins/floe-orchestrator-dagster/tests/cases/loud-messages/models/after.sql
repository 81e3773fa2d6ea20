select id from {{ ref('fails_at_length') }}
