select id from {{ ref('raw-events') }} union all select id from {{ ref('raw_events') }}
