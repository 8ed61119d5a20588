package main

import (
	"os"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/trunkline-sms/trunkline/pkg/testkit/apktest"
)

// makeAPK builds a small signed app: FILE PACKAGE VERSION CODE.
func makeAPK(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: apk FILE PACKAGE VERSION CODE")
	}
	code, err := strconv.ParseInt(args[3], 10, 64)
	ts.Check(err)
	app := apktest.Build(apktest.App{Package: args[1], Version: args[2], Code: code, Padding: 300_000})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), app, 0o600))
}
