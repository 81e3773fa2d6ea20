select id from {{ ref('kept_of_ephemeral') }} where dbt_valid_to is null
