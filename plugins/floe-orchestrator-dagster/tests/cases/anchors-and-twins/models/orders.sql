select customer_id, kind from {{ ref('customers') }} where active
