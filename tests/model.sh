#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The short round of the protocol's model: `make model` runs the long one.
exec "$(dirname "$0")/../docs/model/run.sh" small
