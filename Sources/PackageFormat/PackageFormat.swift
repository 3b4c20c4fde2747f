// PackageFormat
