#!/bin/sh
# Where the headers of Node are: beside the Node in use, or where a distribution has them. Node-API is the same for
# all versions.
headers=$(node -p "require('path').resolve(process.execPath, '../../include/node')")
[ -e "$headers/node_api.h" ] || headers=/usr/include/node
echo "$headers"
