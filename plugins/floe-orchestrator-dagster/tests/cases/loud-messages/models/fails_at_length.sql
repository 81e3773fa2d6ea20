select error('{{ "{0} %s \x1b[31m 氏名 🦆 " ~ "too long " * 30000 }}') as id from {{ ref('loud') }}
