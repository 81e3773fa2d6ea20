select id from {{ source('ga', 'events_*') }} union all select "Id" from {{ source('ga', 'mixed') }}
