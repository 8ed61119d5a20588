package smsgate

import (
	"errors"
	"strconv"

	"github.com/nyaruka/phonenumbers"

	"github.com/trunkline-sms/trunkline/pkg/fault"
)

// unread are the reasons why a number cannot be read. Their texts do not quote the number.
var unread = []error{
	phonenumbers.ErrInvalidCountryCode, phonenumbers.ErrNotANumber, phonenumbers.ErrTooShortNSN, phonenumbers.ErrTooShortAfterIDD,
	phonenumbers.ErrNumTooLong,
}

// normal gives the numbers in the form of E.164. A number without a country belongs to the region; if there is no region,
// it is rejected.
func normal(numbers []string, region string) ([]string, error) {
	all := make([]string, len(numbers))
	for i, text := range numbers {
		one, err := phonenumbers.Parse(text, region)
		switch {
		case err != nil:
			return nil, wrongNumber(i, "failed to parse phone number: "+reason(err))
		case phonenumbers.IsPossibleNumberWithReason(one) != phonenumbers.IS_POSSIBLE: // those of a town would become another's
			return nil, wrongNumber(i, "invalid phone number")
		}
		all[i] = phonenumbers.Format(one, phonenumbers.E164)
	}
	return all, nil
}

func reason(err error) string {
	for _, one := range unread {
		if errors.Is(err, one) {
			return one.Error()
		}
	}
	return "it cannot be read"
}

func wrongNumber(i int, why string) error {
	return fault.New(fault.Invalid, "invalid_number",
		"failed to enqueue message: failed to use phone in row "+strconv.Itoa(i+1)+": "+why)
}
