{{ config(alias='here_' ~ var('area')) }} select level from {{ ref('level') }}
