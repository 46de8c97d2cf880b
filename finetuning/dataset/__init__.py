"""The raw rows that a recipe's sources name, each kept with its place.

raw_dataset         reads the rows of all sources
raw_rows            one raw row and its place
raw_folder          the files of a folder of raw rows
files               finds and opens the files of a source, at any address
file_rows           rows of files, streamed
json_rows           rows of JSON and JSON lines
csv_rows            rows of CSV
hub_rows            rows of a data set on the Hub
linear_equations    rows that are made up: equations with a worked solution
drawing             draws some of the rows by a seed
formats             turns a row of a known format into a conversation
format_recognition  tells the format of rows by their columns
revisions           which version of its data a source names now
raw_summary         counts, sources and first rows that later steps read
"""
