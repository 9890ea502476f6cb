"""The documented limits, each with the page it comes from.

Pages, all of the Tablestore documentation (help.aliyun.com and www.alibabacloud.com/help):

* GENERAL: "Tablestore limits" (formerly "General limits"),
  https://www.alibabacloud.com/help/en/tablestore/general-limits-of-tablestore
* WIDE: "Limits on the Wide Column model",
  https://www.alibabacloud.com/help/en/tablestore/limits-on-widecolumn-model
* SECONDARY: "Secondary index limits",
  https://www.alibabacloud.com/help/en/tablestore/secondary-index-limits
* SEARCH: "Search index limits",
  https://www.alibabacloud.com/help/en/tablestore/search-index-limits
* FILTER: "Filter" (each SDK's page),
  https://www.alibabacloud.com/help/en/tablestore/developer-reference/filter-by-using-python-sdk
* TTL: "Data versions and TTL",
  https://www.alibabacloud.com/help/en/tablestore/data-versions-and-ttl

Not confirmed against the service:

* whether GetRange's ``limit`` counts the rows read or the rows that pass the filter (a server
  option, `options.ServerOptions.range_limit_counts`, "read" by default);
* that a filter cannot see the columns left out by ``columns_to_get`` is documented (FILTER: "The
  reference columns that are used by a filter must be included in the returned columns"), what the
  service does then is not; here the column counts as missing (option ``filter_sees``);
* FILTER says 10 conditions, WIDE says 32 filter nodes; 32 is enforced;
* BatchWriteRow's page refuses two changes of one row in a batch, the SDK's functional tests accept
  them (option ``duplicate_rows_in_batch``, "refuse" by default);
* the least time to live of a table: a day is documented (TTL) and enforced;
* that a table with secondary or search indexes and a time to live must forbid UpdateRow is
  documented (SECONDARY; "CreateSearchIndex"), the error code is not;
* the length of a primary-key value refuses the whole batch, as that of an attribute value does;
* ListTable lists data tables only; deleting a table deletes its secondary indexes, and is refused
  while it has search indexes;
* the code for a secondary index that exists already (here OTSObjectAlreadyExist);
* a row put without attribute columns is accepted; an UpdateRow without any is refused;
* a filter does not see primary-key columns; of a column of another type than the filter's value it
  holds only that it is not equal;
* a value of another type than its predefined column's is written, and the row is not indexed by it.
"""

from __future__ import annotations

import re

KB = 1024
MB = 1024 * KB

# GENERAL
TABLES_PER_INSTANCE = 64  #: data tables and secondary indexes together
REQUEST_BODY_BYTES = 5 * MB

# WIDE (names are counted in bytes; the pattern allows ASCII only)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}\Z")
PRIMARY_KEY_COLUMNS = 4
PRIMARY_KEY_VALUE_BYTES = 1 * KB
ATTRIBUTE_VALUE_BYTES = 2 * MB
DEFINED_COLUMNS = 32
ATTRIBUTE_COLUMNS_PER_CHANGE = 1024
ROW_CHANGE_BYTES = 4 * MB  #: PutRow and UpdateRow
BATCH_WRITE_BYTES = 4 * MB
BATCH_WRITE_ROWS = 200
BATCH_GET_ROWS = 100
RANGE_ROWS = 5000
RANGE_BYTES = 4 * MB
COLUMNS_TO_GET = 128
FILTER_NODES = 32

# SECONDARY
INDEXES_PER_TABLE = 5
INDEX_KEY_COLUMNS = 4
INDEX_ATTRIBUTE_COLUMNS = 32

# SEARCH
SEARCH_LIMIT_FROM_TABLE = 100
SEARCH_LIMIT_FROM_INDEX = 1000
SEARCH_DEFAULT_LIMIT = 10
SEARCH_OFFSET_AND_LIMIT = 100_000
SEARCH_TERMS = 1024
SEARCH_WILDCARD_CHARS = 32
SEARCH_PREFIX_BYTES = 1000
SEARCH_FIELDS = 1000
SEARCH_KEYWORD_BYTES = 4 * KB
SCAN_ALIVE_SECONDS = 60
PARALLEL_SCAN_LIMIT = 2000

# TTL
LEAST_TIME_TO_LIVE_SECONDS = 86_400
