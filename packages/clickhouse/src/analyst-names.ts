/** What a statement of an analyst may name. Everything else is refused, so a new engine's new function is, too. */

/** Views that are read by name. */
export const VIEWS: ReadonlySet<string> = new Set([
  "counted_events",
  "freshness",
  "meters",
  "rated_lines",
  "revenue_by_day",
  "revenue_by_meter",
  "revenue_by_plan",
  "usage",
  "usage_named",
  "usage_unique",
]);

/** Views with parameters: `usage_daily(timeZone = 'Asia/Kolkata')`. */
export const PARAMETRISED_VIEWS: ReadonlySet<string> = new Set([
  "counted_events_at",
  "fates_daily",
  "rejected_daily",
  "top_customers",
  "usage_at",
  "usage_daily",
  "usage_monthly",
]);

/** Clients read it when they connect; it holds names, values and descriptions of settings. */
export const SETTINGS_TABLE = "system.settings";

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

/**
 * Functions, as `EXPLAIN AST` writes them, in lower case: no function of this list reads a file, an address, a table, a
 * dictionary or a setting, waits, or makes many rows of one (`arrayJoin` of what is stored is bounded by what is stored).
 */
export const FUNCTIONS: ReadonlySet<string> = new Set(
  words(`
    and or not xor if multiif equals notequals less greater lessorequals greaterorequals isnull isnotnull coalesce ifnull
    nullif assumenotnull tonullable in notin nullin notnullin exists like notlike ilike notilike match case
    plus minus multiply divide intdiv modulo negate abs round floor ceil ceiling trunc truncate sign sqrt pow power log
    log2 log10 exp greatest least isnan isfinite
    tuple tupleelement array arrayelement arrayjoin arraymap arrayfilter arraysum arrayconcat arraysort arrayreversesort
    arraydistinct arrayexists arrayall arrayzip arraystringconcat arrayslice arrayenumerate arraymin arraymax length empty
    notempty has hasany hasall indexof lambda map mapkeys mapvalues mapcontains
    cast _cast tostring toint8 toint16 toint32 toint64 touint8 touint16 touint32 touint64 tofloat32 tofloat64
    todecimal32 todecimal64 todecimal128 todate todate32 todatetime todatetime64 totypename tounixtimestamp
    tounixtimestamp64milli fromunixtimestamp64milli parsedatetimebesteffort
    toyear toquarter tomonth todayofmonth todayofweek todayofyear tohour tominute tosecond toweek toisoweek toisoyear
    tostartofyear tostartofquarter tostartofmonth tostartofweek tomonday tostartofday tostartofhour
    tostartoffifteenminutes tostartofminute tostartofinterval toyyyymm toyyyymmdd totimezone
    tointervalsecond tointervalminute tointervalhour tointervalday tointervalweek tointervalmonth tointervalquarter
    tointervalyear adddays addweeks addmonths addyears addhours addminutes addseconds subtractdays subtractweeks
    subtractmonths subtractyears subtracthours subtractminutes datediff date_diff dateadd date_add datesub date_sub
    date_trunc datetrunc formatdatetime now now64 today yesterday
    concat lower upper lowerutf8 upperutf8 substring substringutf8 trimboth trimleft trimright lengthutf8 position
    positioncaseinsensitive startswith endswith replaceone replaceall splitbychar
    visitparamextractstring jsonextractstring jsonextractint jsonextractuint jsonextractfloat jsonextractbool
    jsonextractraw jsonextractkeys jsonhas
    count countif countdistinct countdistinctif sum sumif min minif max maxif avg avgif any anyif anylast argmin argmax
    argminif argmaxif uniq uniqexact uniqexactif quantile quantileexact quantiles median stddevpop stddevsamp varpop
    varsamp grouparray groupuniqarray sumdistinct topk
    row_number rank dense_rank first_value last_value nth_value lag lead laginframe leadinframe ntile
    version timezone currentdatabase
  `),
);

/** Functions whose second argument the engine would read as the name of a table. */
export const SET_FUNCTIONS: ReadonlySet<string> = new Set(["in", "notin", "nullin", "notnullin"]);

/** Nodes of the syntax tree. Absent on purpose: Set (SETTINGS), SampleRatio, transformers of columns, anything but SELECT. */
export const NODES: ReadonlySet<string> = new Set(
  words(`
    SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery ExpressionList WithElement Subquery
    TablesInSelectQuery TablesInSelectQueryElement TableExpression TableIdentifier TableJoin ArrayJoin
    Identifier Literal Function Asterisk QualifiedAsterisk OrderByElement WindowDefinition WindowListElement
  `),
);

/** Formats of an answer; each writes into the answer and nowhere else. */
export const FORMATS: ReadonlySet<string> = new Set([
  "CSV",
  "CSVWithNames",
  "JSON",
  "JSONCompact",
  "JSONCompactEachRow",
  "JSONEachRow",
  "Native",
  "Pretty",
  "PrettyCompact",
  "RowBinary",
  "RowBinaryWithNamesAndTypes",
  "TSV",
  "TabSeparated",
  "TabSeparatedWithNames",
  "TabSeparatedWithNamesAndTypes",
  "TSVWithNames",
  "TSVWithNamesAndTypes",
  "Vertical",
]);
