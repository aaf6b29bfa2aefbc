package process

func testChildren() []int { return nil }
