// Command ranges writes which versions Masterminds/semver finds in which ranges.
//
// Usage: go run . > ../ranges.txt
package main

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
)

var versions = []string{
	"0.0.0", "0.0.1", "0.0.3", "0.0.4", "0.1.0", "0.1.5", "0.2.0-rc.1", "0.2.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta",
	"1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.1.0", "1.2.0-rc.1", "1.2.0", "1.2.3-alpha", "1.2.3",
	"1.2.3+build.7", "1.2.4", "1.3.0-beta.1", "1.3.0", "1.9.9", "1.10.0", "2.0.0-0", "2.0.0-rc.1", "2.0.0", "2.0.1", "2.1.0-dev",
	"2.1.0", "3.0.0-alpha", "3.0.0", "10.0.0",
}

var operators = []string{"", "=", "!=", ">", "<", ">=", "=>", "<=", "=<", "~", "~>", "^"}

var operands = []string{
	"0", "0.0", "0.0.0", "0.0.3", "0.1", "0.1.0", "0.2.0-0", "1", "v1", "1.x", "1.X.0", "1.*", "1.2", "v1.2", "1.2.x", "1.2.*", "1.2.3",
	"1.2.3-alpha", "1.2.3-0", "1.2-0", "1-0", "1.x-0", "1.2.x-rc.1", "1.2.3+build.7", "2", "2.0.0-rc.1", "*", "x", "*-0", "x.x.x", "x.1.2",
}

var others = []string{
	"", " ", "||", "1.2 ||", "|| 1.2", "1 || 2", "1||2.0.x", "^1.2 || ~0.1 || 3", ">=1.2 <2", ">=1.2, <2", ">=1.2,<2", ">= 1.2 , < 2",
	"> = 1.2", ">=1.2<2", ">=1.2-0 <2", ">=1.2 <2-0", ">=1.0.0-0 <2.0.0", ">=1.0.0-0, <2.0.0-0", ">=2.0.0-0 <2.0.0", "1.2 - 2", "1.2.3 - 1.3",
	"1.2.3 -1.3", "1.2.3- 1.3", "1.2.0-0 - 2.0.0", "0.1 - 1.2 || 3", "1.2 - 1.3 2", ">1 !=1.2.3", "!=1.2.x >=1", "!=1.x, !=2.x", "abc", ">=", "1.2.3.4", "01.2.3", "1.02", "1.2.3-01",
	"1.2.3-", "=v1.2", "==1.2", "~1.2.3 || ^2.0.0-0", "<2 >=1.0.0-rc", "\t^1.2\t", "^1.2\n", "1.2 1.2.3", "1 2", "latest", "*.*", "* || 1", ">*", "<*", "99999999999999999999", "1.2.3-rc_1", "^ 1.2", "~ 1.2", ">= v1.2.0", "≥1", "1,2", ",1", "1,", "1 , , 2", "xx", "1x", "1.2x", "||1||",
}

func main() {
	fmt.Println("# Made by generate/main.go with github.com/Masterminds/semver/v3 v3.4.0. A range in Go's quotes, and whether each of these")
	fmt.Println("# versions is in it: + or -; an error where the range is refused.")
	fmt.Println(strings.Join(versions, " "))
	var ranges []string
	for _, operator := range operators {
		for _, operand := range operands {
			ranges = append(ranges, operator+operand)
		}
	}
	for _, text := range append(ranges, others...) {
		constraint, err := semver.NewConstraint(text)
		if err != nil {
			fmt.Printf("%q error\n", text)
			continue
		}
		var fits strings.Builder
		for _, version := range versions {
			if constraint.Check(semver.MustParse(version)) {
				fits.WriteByte('+')
			} else {
				fits.WriteByte('-')
			}
		}
		fmt.Printf("%q %s\n", text, fits.String())
	}
}
