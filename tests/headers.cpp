// Its target makes the precompiled header of the tests with CAF.
